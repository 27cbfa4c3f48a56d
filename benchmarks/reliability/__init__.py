"""Kills runs, damages files and records, and looks whether anything is lost or crashes."""
