"""The slice of KuaiRand-Pure: its data, its baselines, and the settings of LiGR for it."""
