"""What a worker asks the aggregators over NATS: statistics, and the redirect targets of banners."""
