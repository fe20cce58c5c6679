"""Tubelet weights."""
