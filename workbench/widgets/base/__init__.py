"""Building blocks of every component: session events, frames, jobs, notices, fields and the page's theme."""
