"""Reports for people: text, pages and pictures of every result."""
