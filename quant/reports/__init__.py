"""What a person reads: text, pages and pictures of every result."""
