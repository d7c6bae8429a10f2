"""`python -m caffe_fcn COMMAND ...` is `caffe-fcn COMMAND ...`."""

import sys

from caffe_fcn.cli import main

sys.exit(main())
