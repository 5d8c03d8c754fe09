"""What both ports promise alike: banner IDs, parameters of statistics, errors, and access.

Why here: port 8080 hands a statistics request to an aggregator as it came, and both ports judge
banner IDs and bodies. Each rule and each sentence exists once, so the two can't disagree.
"""
