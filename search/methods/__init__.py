"""One file per search method. A method is a frozen spec whose `run` is a program over `Search`."""
