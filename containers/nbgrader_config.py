"""nbgrader for the users of a JupyterHub: where learners fetch and submit. The instructor's own is in the root."""

c = get_config()  # noqa: F821  (traitlets puts it there)

c.CourseDirectory.course_id = "moe"
c.Exchange.root = "/srv/nbgrader/exchange"
