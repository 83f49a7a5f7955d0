"""What can a machine give (supply)?  Rates and capacities, and how techniques change them."""
