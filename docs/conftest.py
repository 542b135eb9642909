"""The pages' examples are doctests; scripts are not run when tests are collected."""

collect_ignore_glob = ["conf.py", "gallery/*", "_build/*"]
