"""Other programs' dictionary files, in and out."""
