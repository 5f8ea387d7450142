"""What every component is made of: session events, frames, jobs, notices, fields and the page's theme."""
