"""What the commands do, one module for each group; imported when a command is called."""
