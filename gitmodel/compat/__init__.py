"""Judging a change: facts (changes, replay), rules as data, a verdict, reports. Nothing here reads Git or storage."""
