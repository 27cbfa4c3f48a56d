"""Qt parts that know neither runs nor layers."""
