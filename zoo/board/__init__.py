"""The leaderboard: ranks of entries, as text and as a page."""
