"""HTM-Align: alignment of narrations with videos."""
