"""What nodes show in the browser: reports that are kept, errors with remedies."""
