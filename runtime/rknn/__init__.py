"""Rockchip NPUs: graphs as chains of parts, simulated by the vendor's toolkit or run by its runtime on a board."""
