"""Several processes train one network: who they are, how they meet, who serves the parameters."""
