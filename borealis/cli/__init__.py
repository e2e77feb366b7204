"""The command line. Each command is a module; `main` puts them together.

Commands talk to a region like any client does: through the AWS API with boto3, and through the region's
sockets for what AWS has no call for (status, chaos, ending it).
"""
