"""What metrics stand on: CLIP, LPIPS, OCR and text matching."""
