"""ImageReward and its network."""
