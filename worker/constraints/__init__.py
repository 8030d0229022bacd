"""Constrained answers: what a job asks for, compiled once, and where each answer is in it."""
