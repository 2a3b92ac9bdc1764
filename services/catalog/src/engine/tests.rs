//! The engine over a registry in memory, a vendor and servers that do what a test says.
