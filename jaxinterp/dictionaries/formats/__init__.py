"""Other programs' dictionary files, in and out. A format is a module and one entry in `registry.FORMATS`."""
