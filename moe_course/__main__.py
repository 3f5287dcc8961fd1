"""`python -m moe_course`: the `moe-course` command."""

from moe_course.command.cli import main

raise SystemExit(main())
