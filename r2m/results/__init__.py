"""What runs came to: arms, paired differences, findings."""
