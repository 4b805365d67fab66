# The page's project file is written before its commands run.
true
