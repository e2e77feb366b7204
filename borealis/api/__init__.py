"""The API server: AWS's own protocols on one HTTP port, for unmodified AWS clients."""
