"""The demo: broker, worker and four tenants on one machine, and the model and adapters they use."""
