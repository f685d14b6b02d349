"""Who calls: roles, tokens, and their offline check by the key set of the access room."""

from arcuate.kernel.auth.authenticator import Authenticator
from arcuate.kernel.auth.roles import Principal, Role

__all__ = ["Authenticator", "Principal", "Role"]
