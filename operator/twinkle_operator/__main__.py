"""Run the operator."""

import sys

from twinkle_operator.main import main

sys.exit(main())
