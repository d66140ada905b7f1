"""Sockets and inputs that several nodes share."""
