"""The tree under test, and how a judge reaches it: spies, the ledger, counted operations, spaces."""
