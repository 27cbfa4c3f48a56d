"""What files say of their arrays beside the pixels, in words that many formats share."""
