"""The predictor: one loop in one actor. Knows no Kafka, no Ray, no Prometheus; they come in through `ports`."""
