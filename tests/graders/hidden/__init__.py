"""Criteria that are tried at grading only: other sizes than a self-check shows, and what must stay true when inputs
change. A student bundle has none of them. The public class of an exercise declares what they are worth.
"""
