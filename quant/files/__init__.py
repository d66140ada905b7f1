"""Files as such: what any room needs to read and write them safely."""
