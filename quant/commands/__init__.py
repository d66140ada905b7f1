"""What each subcommand of ``nvfp4`` does, one file each: read options, call the pipeline, print."""
