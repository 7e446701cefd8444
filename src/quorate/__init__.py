"""quorate"""
