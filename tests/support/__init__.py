"""What tests share: fixtures, real servers, ports, proxies, waiting."""
