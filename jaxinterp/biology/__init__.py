"""Where the right answers are known: pocket, its text, its case studies and their report."""
