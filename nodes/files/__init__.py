"""Files in ComfyUI's own folders: models, what the pack saves for the user, prompt decks."""
