"""Tools of those who write the course: `release` builds the student notebooks, `rules` reads them all."""
