"""The idea: a linear layer with a bank of low-rank experts and a router that mixes them. Imports only torch."""
