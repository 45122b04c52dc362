"""From data, backbone, zoo and budget to a plan, which is a file."""
