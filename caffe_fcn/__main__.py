"""`python -m caffe_fcn COMMAND ...`"""

import sys

from caffe_fcn.cli import main

sys.exit(main())
