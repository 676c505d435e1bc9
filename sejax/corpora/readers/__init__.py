"""One file per corpus, or per form of corpora: its reader and its label schemes."""
