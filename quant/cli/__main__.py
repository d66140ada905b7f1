"""``python -m nvfp4_foundry.quant.cli``."""

import sys

from . import main

sys.exit(main())
